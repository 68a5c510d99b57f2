package settings

import (
	"fmt"
	"strings"
)

// DidYouMean returns the end of an "unknown name" message: the nearest
// candidate, or, if none is near and list is not empty, list followed by all
// candidates.
func DidYouMean(got string, candidates []string, prefix, list string) string {
	if best := Nearest(got, candidates); best != "" {
		return fmt.Sprintf("; did you mean %s%s?", prefix, best)
	}
	if list == "" || len(candidates) == 0 {
		return ""
	}
	return "; " + list + strings.Join(candidates, ", ")
}

// Nearest returns the candidate that was most likely meant, or "": the one with
// the fewest typing errors (letters added, lost, changed or swapped), at most a
// third of its length, or the only one that starts with got.
func Nearest(got string, candidates []string) string {
	key := Fold(got)
	best, bestDistance := "", len(key)/3+1
	for _, c := range candidates {
		if d := slips(key, Fold(c)); d <= bestDistance && d < max(len(key), len(c)) && (best == "" || d < bestDistance) {
			best, bestDistance = c, d
		}
	}
	if best != "" || len(key) < 2 {
		return best
	}
	for _, c := range candidates {
		if strings.HasPrefix(Fold(c), key) {
			if best != "" {
				return ""
			}
			best = c
		}
	}
	return best
}

// Fold makes names that differ in case or in the kind of dash comparable.
func Fold(s string) string {
	return strings.ToLower(strings.ReplaceAll(s, "_", "-"))
}

// slips counts the edits between a and b, in bytes (the optimal string
// alignment distance).
func slips(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
