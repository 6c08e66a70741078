"""How Labelfeed is run beside other servers: what development and tests start, and what production applies."""
