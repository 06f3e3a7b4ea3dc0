//! The Docker Engine API as data: request, response and stream types.
