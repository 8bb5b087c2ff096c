package main

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
)

// containerHosts are the names under which containers call the machine they run on.
var containerHosts = []string{"host.docker.internal", "host.containers.internal"}

// bridges are the interfaces of container engines on Linux, in order of preference.
var bridges = []string{"docker0", "podman0", "cni-podman0", "nerdctl0"}

// containerBridge is where containers reach this machine. On macOS and Windows the engines lead them to loopback by themselves:
// the address is invalid then.
func containerBridge() (netip.Addr, error) {
	if runtime.GOOS != "linux" {
		return netip.Addr{}, nil
	}
	for _, name := range bridges {
		iface, err := net.InterfaceByName(name)
		if err != nil {
			continue
		}
		addrs, err := iface.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Is4() {
				return prefix.Addr(), nil
			}
		}
	}
	return netip.Addr{}, &failure{
		code: "no_container_bridge", what: "no bridge of a container engine was found (docker0, podman0)",
		next: "iapctl connect RESOURCE --listen BRIDGE-ADDRESS",
	}
}

// containerLine is what starts a container that reaches the port: the variables of its kind, on lines that fit the screen.
func containerLine(c connectionDocument) string {
	at := fmt.Sprintf("host.docker.internal:%d", c.Port)
	lines := []string{"docker run --add-host host.docker.internal:host-gateway"}
	switch c.Kind {
	case "model":
		lines = append(lines, "-e OPENAI_BASE_URL=http://"+at+"/v1", "-e OPENAI_API_KEY="+c.LocalKey)
	case "http":
		lines = append(lines, "-e IAP_URL=http://"+at, "-e IAP_LOCAL_KEY="+c.LocalKey)
	default:
		lines = append(lines, "-e IAP_ADDR="+at)
	}
	return strings.Join(lines, " \\\n    ") + " …"
}
