// Package service lets a program run in the background of one user, from their login on, by what the system has for that. It exists so
// that a connect need not be typed every morning.
//
// It writes one file and asks the system's manager to heed it: a unit of systemd's user manager on Linux, a launch agent on macOS.
// There is nothing of it on other systems, and it says so.
//
//	service.go  what is to run; the manager of this system
//	file.go     the file: never over what a person wrote, and removed only if nobody changed it
//	systemd.go  the unit's text and the calls of systemctl
//	launchd.go  the launch agent's text and the calls of launchctl
//
// The file carries the hash of its own text in its second line. A file without that hash, or with another one, is somebody's work: it
// is neither replaced nor removed unless asked in so many words.
package service
