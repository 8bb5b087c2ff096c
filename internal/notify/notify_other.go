//go:build !linux && !darwin

package notify

import "context"

func (d Desktop) show(context.Context, string, string) error { return ErrNoDesktop }
