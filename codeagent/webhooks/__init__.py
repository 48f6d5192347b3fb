"""Who is told: webhooks, what they are sent and when, and where sending may go. Sent by the relay."""
