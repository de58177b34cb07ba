"""What an executor does, over ports: take attempts in, fire them at their due instant, report, renew, drain."""
