"""The executor: leases attempts, makes their POST on the dot, reports what came of it. It stores nothing."""
