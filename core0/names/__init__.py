"""Names of containers: who answers the questions that containers ask."""
