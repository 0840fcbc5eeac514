"""What tests share: the command, made-up studies, oracles, servers and faults."""
