// Package archtest holds the tests that keep the rooms of the product apart:
// who may import whom, one owner for each heavy dependency, package documentation
// everywhere. It exists because a rule that nothing checks is soon broken.
package archtest
