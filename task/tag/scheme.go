package tag

// Scheme is a way in which tags mark spans of tokens, such as the names in a
// sentence.
type Scheme string

// The schemes. The tag of a token in a span is a letter, a dash and the span's
// label; other tokens have O. Labels means that tags do not mark spans: each
// token has an independent label, such as a part of speech.
const (
	Labels Scheme = "labels"
	IOB1   Scheme = "iob1"  // I- in a span; B- only at the beginning of a span that directly follows one with the same label
	IOB2   Scheme = "iob2"  // B- begins a span, I- continues it
	BIOES  Scheme = "bioes" // as IOB2, but E- ends a span and S- is a span of one token
	BMES   Scheme = "bmes"  // BIOES with M- instead of I-
	BILOU  Scheme = "bilou" // BIOES with L- instead of E- and U- instead of S-
)

// schemes are those that mark spans, with their letters for the beginning, the
// inside, the end and the whole of a span.
var schemes = map[Scheme][4]byte{
	IOB1: {'I', 'I', 'I', 'I'}, IOB2: {'B', 'I', 'I', 'B'}, BIOES: {'B', 'I', 'E', 'S'}, BMES: {'B', 'M', 'E', 'S'}, BILOU: {'B', 'I', 'L', 'U'},
}

// Outside is the tag of a token in no span.
const Outside = "O"

// Span is the tokens [From, To) and their label. The label is "" in files whose
// tags are letters only, as in word segmentation.
type Span struct {
	From, To int
	Label    string
}

// split returns the parts of a tag: its letter in BIOES, 'O' if it marks no span,
// and the label. ok is false if it is not the tag of a span.
func split(tag string) (letter byte, label string, ok bool) {
	if tag == Outside {
		return 'O', "", true
	}
	if tag == "" || len(tag) > 1 && tag[1] != '-' || len(tag) == 2 {
		return 0, "", false
	}
	if len(tag) > 2 {
		label = tag[2:]
	}
	switch letter = tag[0]; letter {
	case 'B', 'I', 'E', 'S':
		return letter, label, true
	case 'M':
		return 'I', label, true
	case 'L':
		return 'E', label, true
	case 'U':
		return 'S', label, true
	}
	return 0, "", false
}

// Spans returns the spans that tags of any scheme mark, also if they violate it,
// by the rule of the CoNLL shared tasks' conlleval, extended to E and S as
// seqeval does: a span begins at B, S, after another label, and where I or E
// follow O, E or S; it ends before the beginning of another and before O.
func Spans(tags []string) []Span {
	var spans []Span
	open := -1 // where the current span began
	before, label := byte('O'), ""
	for i, tag := range tags {
		letter, name, ok := split(tag)
		if !ok {
			letter, name = 'O', ""
		}
		begins := letter != 'O' && (letter == 'B' || letter == 'S' || before == 'O' || before == 'E' || before == 'S' || name != label)
		if open >= 0 && (begins || letter == 'O') {
			spans = append(spans, Span{open, i, label})
			open = -1
		}
		if begins {
			open = i
		}
		before, label = letter, name
	}
	if open >= 0 {
		spans = append(spans, Span{open, len(tags), label})
	}
	return spans
}

// Tags returns the tags of a sentence of n tokens with the given spans, which are
// in order and do not overlap. For Labels, which has no spans, all tags are O.
func (s Scheme) Tags(spans []Span, n int) []string {
	tags := make([]string, n)
	for i := range tags {
		tags[i] = Outside
	}
	letters, ok := schemes[s]
	if !ok {
		return tags
	}
	end, label := -1, ""
	for _, span := range spans {
		for i := span.From; i < span.To; i++ {
			at := 1
			switch {
			case span.To-span.From == 1:
				at = 3
			case i == span.From:
				at = 0
			case i == span.To-1:
				at = 2
			}
			letter := letters[at]
			if s == IOB1 && i == span.From && end == i && label == span.Label {
				letter = 'B'
			}
			tags[i] = string(letter)
			if span.Label != "" {
				tags[i] += "-" + span.Label
			}
		}
		end, label = span.To, span.Label
	}
	return tags
}

// census counts what distinguishes schemes, over all sentences of a file.
type census struct {
	letters  [256]int // of the tags in spans, with or without a label
	labels   int      // tags that are not those of a span
	bare     int      // tags of one letter other than O
	labelled int      // tags with a letter and a label
	inside   int      // spans that begin with I after O or another label
}

func (c *census) add(tags []string) {
	before := "" // label of the tag before, if that was in a span
	for _, tag := range tags {
		letter, label, ok := split(tag)
		switch {
		case !ok:
			c.labels++
		case letter == 'O':
		case len(tag) == 1:
			c.bare++
		default:
			c.labelled++
		}
		if !ok || letter == 'O' {
			before = ""
			continue
		}
		c.letters[tag[0]]++
		if tag[0] == 'I' && before != "-"+label {
			c.inside++
		}
		before = "-" + label
	}
}

// scheme returns the scheme of the tags, or the closest one.
func (c *census) scheme() Scheme {
	l := &c.letters
	switch {
	case c.labels > 0, c.bare > 0 && c.labelled > 0:
		return Labels
	case c.bare > 0 && (l['B'] == 0 || l['I']+l['M']+l['E'] == 0):
		return Labels
	case l['M'] > 0:
		return BMES
	case l['L']+l['U'] > 0:
		return BILOU
	case l['E']+l['S'] > 0:
		return BIOES
	case c.inside > l['B']:
		return IOB1
	case l['B']+l['I'] > 0:
		return IOB2
	}
	return Labels // all O, or nothing
}

// forbidden returns a function that reports which tags may not follow each other
// in BIOES, by their numbers; -1 is before the first and after the last token.
func forbidden(tags []string) func(from, to int) bool {
	type parts struct {
		letter byte
		label  string
	}
	list := make([]parts, len(tags))
	for i, tag := range tags {
		list[i].letter, list[i].label, _ = split(tag)
	}
	at := func(i int) parts {
		if i < 0 {
			return parts{letter: 'O'}
		}
		return list[i]
	}
	return func(from, to int) bool {
		a, b := at(from), at(to)
		open := a.letter == 'B' || a.letter == 'I'
		goes := b.letter == 'I' || b.letter == 'E'
		return open != goes || open && a.label != b.label
	}
}

// inBIOES lists the BIOES tags of labels in their order, O first.
func inBIOES(labels []string) []string {
	tags := []string{Outside}
	for _, label := range labels {
		for _, letter := range []string{"B", "I", "E", "S"} {
			if label == "" {
				tags = append(tags, letter)
			} else {
				tags = append(tags, letter+"-"+label)
			}
		}
	}
	return tags
}
