//! Model agents: the workers that call the providers, and the simulator of the providers' wires.
pub mod provider;
pub mod sim;
pub mod wake;
pub mod worker;
