package notify

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"
)

const (
	busName = "org.freedesktop.Notifications"
	busPath = "/org/freedesktop/Notifications"
)

// show asks the session bus's notification service (Desktop Notifications Specification 1.3). A bus is never started for it; the
// service only where a display says that there is somebody to look.
func (d Desktop) show(ctx context.Context, title, body string) error {
	address := d.bus()
	if address == "" {
		return ErrNoDesktop
	}
	conn, err := dbus.Connect(address, dbus.WithContext(ctx), dbus.WithAuth(dbus.AuthExternal(strconv.Itoa(os.Getuid()))))
	if err != nil {
		return fmt.Errorf("reach the session bus: %w", err)
	}
	defer conn.Close()
	flags := dbus.FlagNoAutoStart
	if d.Env("DISPLAY") != "" || d.Env("WAYLAND_DISPLAY") != "" {
		flags = 0
	}
	call := conn.Object(busName, busPath).CallWithContext(
		ctx, busName+".Notify", flags,
		"iapctl", uint32(0), "", title, body, []string{}, map[string]dbus.Variant{}, int32(-1),
	)
	if call.Err != nil {
		return fmt.Errorf("show notification: %w", call.Err)
	}
	return nil
}

// bus is the session bus's address: the one named, or the one that systemd gives each user. Only sockets are spoken to: other
// kinds of address run programs.
func (d Desktop) bus() string {
	if named := d.Env("DBUS_SESSION_BUS_ADDRESS"); named != "" {
		if strings.HasPrefix(named, "unix:") && !strings.Contains(named, ";") {
			return named
		}
		return ""
	}
	socket := filepath.Join(d.Env("XDG_RUNTIME_DIR"), "bus")
	if info, err := os.Stat(socket); !filepath.IsAbs(socket) || err != nil || info.Mode().Type() != os.ModeSocket {
		return ""
	}
	return "unix:path=" + socket
}
