//! One suite for each port, run on the adapter and on its fake.
