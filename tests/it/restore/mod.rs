//! Restore, seen whole: the program run against real servers and hostile ones.
