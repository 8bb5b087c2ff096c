// Package pgtest runs a PostgreSQL server for tests.
//
// It exists so that what is promised of the shared state is shown with the real server, of the version that the system
// has: a private cluster in a temporary folder, on a unix socket, that no other program sees and that ends with the tests.
package pgtest
