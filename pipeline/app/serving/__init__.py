"""`labelfeed serve`: links of our own to objects (`tokens`), what answers them (`objects`), and in which process."""
