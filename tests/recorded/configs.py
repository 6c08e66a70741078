"""The labelling configurations of the inputs."""

from __future__ import annotations


def _with_choices(tags: str, to: str = "o") -> str:
    return f'<View>{tags}<Choices name="c" toName="{to}"><Choice value="x"/><Choice value="y"/></Choices></View>'


CONFIGS = {
    "none": "<View></View>",
    "text": _with_choices('<Text name="o" value="$text"/>'),
    "html": _with_choices('<HyperText name="o" value="$html"/>'),
    "image": _with_choices('<Image name="o" value="$image"/>'),
    "images": _with_choices('<Image name="o" valueList="$images"/>'),
    "audio": _with_choices('<Audio name="o" value="$audio"/>'),
    "video": _with_choices('<Video name="o" value="$video"/>'),
    "pdf": _with_choices('<Pdf name="o" value="$pdf"/>'),
    "two": _with_choices('<Text name="o" value="$a"/><Text name="p" value="$b"/>'),
    "mixed": _with_choices('<Image name="o" value="$image"/><Text name="p" value="$note"/>'),
    "nested": _with_choices('<Text name="o" value="$a.b"/>'),
    "deep": _with_choices('<Text name="o" value="$a.b.c"/>'),
    "first": _with_choices('<Image name="o" value="$images[0]"/>'),
    "repeater": _with_choices(
        '<Repeater on="$pages" indexFlag="{{idx}}"><Image name="p{{idx}}" value="$pages[{{idx}}].url"/></Repeater>'
        '<Text name="o" value="$title"/>'
    ),
    "paragraphs": _with_choices('<Paragraphs name="o" value="$turns" nameKey="author" textKey="text"/>'),
    "chat": _with_choices('<Chat name="o" value="$messages"/>'),
    "timeseries": (
        '<View><TimeSeriesLabels name="l" toName="o"><Label value="run"/></TimeSeriesLabels>'
        '<TimeSeries name="o" value="$series" valueType="url" timeColumn="time">'
        '<Channel column="v"/></TimeSeries></View>'
    ),
    "table": _with_choices('<Table name="o" value="$row"/>'),
    "list": (
        '<View><List name="o" value="$items" title="Items"/><Ranker name="r" toName="o">'
        '<Bucket name="good" title="Good"/></Ranker></View>'
    ),
    "header": _with_choices('<Header name="h" value="$title"/><Text name="o" value="$text"/>'),
    "dynamic": '<View><Text name="o" value="$text"/><Choices name="c" toName="o" value="$options"/></View>',
    "taxonomy": '<View><Text name="o" value="$text"/><Taxonomy name="c" toName="o" value="$tree"/></View>',
    "linked": _with_choices('<Text name="o" value="$text" valueType="url"/>'),
    "within": _with_choices('<Text name="o" value="Dear $name, hello"/>'),
    "constant": _with_choices('<Text name="o" value="always this"/><Text name="p" value="$text"/>'),
    "both": _with_choices('<Audio name="o" value="$media"/><Video name="p" value="$media"/>'),
    "numbers": _with_choices('<Text name="o" value="$text"/><Number name="n" toName="o"/>'),
}
