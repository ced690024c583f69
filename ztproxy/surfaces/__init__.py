"""Who can call us: a foreign request in, a decision acted on. Together with `wire`, the enforcement point."""
