//! The house seen from the street: the broker, its agents and its command line as real processes.
