mod beside;
mod cuts;
mod limits;
mod model;
mod runs;
mod schedules;
mod trouble;
mod whole;
