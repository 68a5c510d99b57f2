package data

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// The checks of a task's settings. Each gives nil or an [InputError] of one line.

// OneOf wants a setting to be one of some words, of which one may be empty.
func OneOf(name, value string, words []string) error {
	if slices.Contains(words, value) {
		return nil
	}
	return Errorf("%s: want %s, got %q", name, strings.TrimPrefix(strings.Join(words, ", "), ", "), value)
}

// Between wants a setting to be a number from least to most.
func Between[T int | float64](name string, value, least, most T) error {
	switch {
	case value >= least && value <= most: // not a number fails too
		return nil
	case math.IsInf(float64(most), 1):
		return Errorf("%s: want %v or more, got %v", name, least, value)
	}
	// As the user writes them: 1000000, not 1e+06.
	return Errorf("%s: want a number from %s to %s, got %v", name, plain(least), plain(most), value)
}

func plain[T int | float64](n T) string {
	if whole := int64(n); T(whole) == n {
		return fmt.Sprint(whole)
	}
	return fmt.Sprint(n)
}

// Setting makes an error about settings, of another package, an [InputError].
func Setting(err error) error {
	if err == nil {
		return nil
	}
	return Errorf("%w", err)
}
