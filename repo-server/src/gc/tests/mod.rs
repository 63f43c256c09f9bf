mod cuts;
mod model;
mod runs;
mod schedules;
mod whole;
