package tag

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/data"
)

// spelling is another way to write the tags of spans than B-PER and O, such as B_PER,
// b-per, PER-B and 0.
type spelling struct {
	outside   string
	separator string // between the letter and the label
	lower     bool   // the letter is lower case
	last      bool   // the letter follows the label
}

// outsides are what files have for O: also signs that look like it.
var outsides = []string{Outside, "o", "0", "_", "-", "*", "OUT", "out", "Other", "OTHER", "other", "NONE", "None", "none", "О", "Ο", "Ｏ"}

var separators = []string{"-", "_", ":", "/", ".", "|", "–", "—", "−"}

const spanLetters = "BIESMLU"

// canonical returns a tag as B-PER or O; false if it is not spelled like that.
func (s *spelling) canonical(tag string) (string, bool) {
	if tag == s.outside {
		return Outside, true
	}
	letter, label := tag, ""
	if len(tag) > 1 {
		var ok bool
		if s.last {
			at := strings.LastIndex(tag, s.separator)
			if ok = at > 0; ok {
				label, letter = tag[:at], tag[at+len(s.separator):]
			}
		} else {
			letter, label, ok = strings.Cut(tag, s.separator)
		}
		if !ok || label == "" {
			return "", false
		}
	}
	upper := strings.ToUpper(letter)
	if len(letter) != 1 || !strings.Contains(spanLetters, upper) || s.lower == (letter == upper) {
		return "", false
	}
	if label == "" {
		return upper, true
	}
	return upper + "-" + label, true
}

// of returns tags in canonical spelling; false if one of them is spelled otherwise.
func (s *spelling) of(tags []string) ([]string, bool) {
	list := make([]string, len(tags))
	for i, tag := range tags {
		var ok bool
		if list[i], ok = s.canonical(tag); !ok {
			return nil, false
		}
	}
	return list, true
}

// findSpelling returns the spelling that all of the tags, which are distinct, have, if
// they then mark spans; the usual one comes first.
func findSpelling(tags []string) (*spelling, bool) {
	for _, outside := range outsides {
		if outside != Outside && !slices.Contains(tags, outside) {
			continue
		}
		for _, separator := range separators {
			for _, kind := range [][2]bool{{false, false}, {true, false}, {false, true}, {true, true}} {
				s := &spelling{outside, separator, kind[0], kind[1]}
				if list, ok := s.of(tags); ok && markSpans(list) {
					return s, true
				}
			}
		}
	}
	return nil, false
}

// markSpans reports whether tags, of which all have the form of those of spans, are
// likely to be such.
func markSpans(tags []string) bool {
	var c census
	c.add(tags)
	begins, outside := c.letters['B'] > 0, slices.Contains(tags, Outside)
	return c.scheme() != Labels && (begins || c.labelled > 0 && outside)
}

// distinct returns the distinct tags of sentences, sorted.
func distinct(lists ...[]data.Sentence) []string {
	seen := map[string]bool{}
	for _, list := range lists {
		for _, s := range list {
			for _, tag := range s.Tags {
				seen[tag] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// respell changes the tags of all parts to the usual spelling, if all have the same
// spelling, or each has one of its own. It returns a note on what was changed, or "".
func respell(parts ...*[]data.Sentence) string {
	spellings := spellingsOf(parts)
	if spellings == nil {
		return ""
	}
	var examples []string
	for i, list := range parts {
		written, changed := map[string]string{}, false
		for _, tag := range distinct(*list) {
			written[tag], _ = spellings[i].canonical(tag)
			if tag == written[tag] {
				continue
			}
			changed = true
			if one := fmt.Sprintf("%s as %s", tag, written[tag]); !slices.Contains(examples, one) {
				examples = append(examples, one)
			}
		}
		if !changed {
			continue
		}
		*list = slices.Clone(*list)
		for k := range *list {
			s := &(*list)[k]
			s.Tags = slices.Clone(s.Tags)
			for t, tag := range s.Tags {
				s.Tags[t] = written[tag]
			}
		}
	}
	if examples == nil {
		return ""
	}
	more := ""
	if len(examples) > 4 {
		examples, more = examples[:4], " and so on"
	}
	return "tags are read in the usual spelling: " + strings.Join(examples, ", ") + more
}

// spellingsOf returns the spelling of the tags of each part; nil if a part has none.
func spellingsOf(parts []*[]data.Sentence) []*spelling {
	list, marks := make([]*spelling, len(parts)), false
	var all [][]data.Sentence
	for _, part := range parts {
		all = append(all, *part)
	}
	if s, ok := findSpelling(distinct(all...)); ok {
		return slices.Repeat([]*spelling{s}, len(parts))
	}
	for i, sentences := range all {
		tags := distinct(sentences)
		s, ok := findSpelling(tags)
		switch {
		case ok:
			list[i], marks = s, true
		case len(tags) == 0 || len(tags) == 1 && slices.Contains(outsides, tags[0]):
			list[i] = &spelling{outside: strings.Join(tags, ""), separator: "-"}
		default:
			return nil
		}
	}
	if !marks {
		return nil
	}
	return list
}

// lookalike returns a tag that looks like one of a span although the tags together
// mark none; "" if there is none.
func lookalike(tags []string) string {
	begins, goesOn, outside := "", false, slices.ContainsFunc(tags, func(tag string) bool { return slices.Contains(outsides, tag) })
	for _, tag := range tags {
		for _, separator := range separators {
			for _, kind := range [][2]bool{{false, false}, {true, false}, {false, true}, {true, true}} {
				s := &spelling{Outside, separator, kind[0], kind[1]}
				one, ok := s.canonical(tag)
				if !ok || one == Outside || len(tag) == 1 && kind[0] {
					continue
				}
				if one[0] == 'B' && begins == "" {
					begins = tag
				}
				goesOn = goesOn || one[0] != 'B'
			}
		}
	}
	if outside || goesOn {
		return begins
	}
	return ""
}
