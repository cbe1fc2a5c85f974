"""Log lines sent on to where people collect them: syslog, Loki, OTLP."""
