// Package profile keeps what iapctl knows about each relay on disk: which relay it is, how it was last proven, which ports its resources have.
// It exists so that one user can hold several relays and logins apart, and so that a relay which once proved itself strongly cannot be
// replaced by one that proves less.
//
// A profile is a name and two files:
//
//	CONFIG/profiles/NAME/profile.yaml   what the user chose: relay, ca_file, issuer. May be edited by hand; read strictly.
//	STATE/profiles/NAME/state.json      what iapctl remembers: relay key, channel binding, ports, last list of resources.
//	CONFIG/current                      the name that counts when none is given.
//	CONFIG/config.yaml                  what the user wants served, of all profiles. Written by hand only; read strictly.
//
// CONFIG is $IAP_CONFIG_DIR, else $XDG_CONFIG_HOME/iap, else the system's place for settings. STATE is $IAP_CONFIG_DIR/state,
// else $XDG_STATE_HOME/iap, else ~/.local/state/iap (the local application directory on Windows). Credentials lie under
// STATE too, in the care of package auth. Directories are made with mode 0700 and files with mode 0600, each by temporary
// file, fsync and rename; state.json changes only under a file lock.
package profile
