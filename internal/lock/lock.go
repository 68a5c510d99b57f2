// Package lock provides locks that the system releases when their process ends.
package lock

import "errors"

// ErrHeld is returned for a lock that is held, by this process or another.
var ErrHeld = errors.New("the lock is held")
