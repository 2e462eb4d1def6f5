//! Restore, seen whole: the program run against real servers and hostile ones.

mod commands;
mod folded;
mod moments;
mod thaw;
