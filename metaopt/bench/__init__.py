"""The referee, in five rooms: measure, records, contract, trial and rules, each on those before."""
