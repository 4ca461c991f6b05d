"""What lies between the stages: the chunked feature store."""
