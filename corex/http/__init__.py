"""One route table gives handlers, access rules and OpenAPI; shared with Core-0's API."""
