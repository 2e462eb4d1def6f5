//! Restore, seen whole: the program run against real servers and hostile ones.

mod disks;
mod faults;
mod hostile;
mod killed;
