package auth

import (
	"errors"
	"fmt"
	"slices"
)

// A provider of people mostly gives tokens to programs as well (client credentials),
// under the same "iss". It is then configured twice, once for each, and what its
// tokens are for tells the two apart: their audience, which the provider signs.

// checkBeside refuses a second issuer of one URL where a token could be taken for
// one of either: then a person could pass for a program, whose token is bound to no
// key, or a program for one of the people whom any: names.
func (i *issuer) checkBeside(first *issuer) error {
	if first == nil {
		return nil
	}
	if first.sharing || first.Workload == i.Workload {
		return fmt.Errorf("its url is that of issuer %q: one issuer of people and one of programs (workload: true) may share it, not more", first.Name)
	}
	first.sharing, i.sharing = true, true
	people, programs := first, i
	if people.Workload {
		people, programs = programs, people
	}
	if len(programs.parties) == 0 {
		return errors.New("authorized_parties: name the clients that are programs; the issuer of people with this url has others")
	}
	for _, party := range programs.parties {
		if slices.Contains(people.parties, party) {
			return fmt.Errorf("authorized_parties: %q is a client of issuer %q as well", party, people.Name)
		}
	}
	return errors.Join(i.checkApart(first), first.checkApart(i))
}

// checkApart refuses audiences of ours that a token for the other may hold.
func (i *issuer) checkApart(other *issuer) error {
	for _, a := range slices.Concat(i.Audiences, i.BearerAudiences) {
		if slices.Contains(slices.Concat(other.Audiences, other.BearerAudiences, other.ExtraAudiences), a) {
			return fmt.Errorf("audience %q is one of issuer %q as well, which has the same url", a, other.Name)
		}
	}
	return nil
}

// meant is the issuer of this URL that the token is for: the one that has one of its
// audiences, at whichever door. All its checks come after.
func (i *issuer) meant(c claims) *issuer {
	list, _ := c.audience()
	for _, one := range i.beside {
		if slices.ContainsFunc(slices.Concat(one.Audiences, one.BearerAudiences), func(a string) bool { return slices.Contains(list, a) }) {
			return one
		}
	}
	return i
}
