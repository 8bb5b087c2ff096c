// Package auth knows who someone is: it logs people in, keeps their credentials,
// and turns a token into a verified Principal.
package auth
