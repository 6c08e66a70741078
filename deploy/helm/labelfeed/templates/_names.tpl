{{- define "labelfeed.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "labelfeed.selector" -}}
app.kubernetes.io/name: labelfeed
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "labelfeed.labels" -}}
{{ include "labelfeed.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "labelfeed.account" -}}
{{- if .Values.serviceAccount.name }}{{ .Values.serviceAccount.name }}{{ else if .Values.serviceAccount.create }}{{ include "labelfeed.name" . }}{{ else }}default{{ end }}
{{- end }}
