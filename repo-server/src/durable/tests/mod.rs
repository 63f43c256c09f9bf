//! Tests of the durable operations: on the model of a disk that forgets, and on a real one.

mod error;
mod faults;
mod power;
mod real;
mod settle;
