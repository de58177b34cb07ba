"""The ports of the scheduler's use cases: what they need of the database, of time and of each other.

Every write of an existing record is a compare-and-set, judged by what it matched. Methods for callers take an
`OrgScope` and cannot see beyond it; methods for the dispatch path take ids from the internal port and see all orgs.
"""
