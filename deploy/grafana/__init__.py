"""What shows people how an installation does: a dashboard for Grafana."""
