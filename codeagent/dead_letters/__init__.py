"""What no consumer could handle: kept for operators, who send it again or discard it."""
