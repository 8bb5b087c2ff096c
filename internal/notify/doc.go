// Package notify shows a short text on the desktop of whoever runs the program. It exists because a program in the background has no
// other way to tell a person that it waits for them.
//
// It is a courtesy and never more: the same text stands where the program narrates, a desktop that is not there is no failure worth
// telling, and nothing waits for it longer than Limit. No text ever runs through a shell or becomes part of a script.
//
//	notify.go          what may be shown, and how long it may take
//	notify_linux.go    org.freedesktop.Notifications on the session bus, where something shows them already
//	notify_darwin.go   osascript, with the text as arguments
//	notify_other.go    nothing: a toast on Windows needs an installed program
package notify
