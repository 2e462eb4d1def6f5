//! Named cases of the engine.
