package tag

// Scheme is how tags mark spans of tokens, such as the names in a sentence.
type Scheme string

// The schemes. A span's tags are a letter, a dash and the span's label; the
// other tokens have O. Labels means that tags are no spans: each token has a
// label of its own, such as a part of speech.
const (
	Labels Scheme = "labels"
	IOB1   Scheme = "iob1"  // I- inside; B- only where a span follows one of its label at once
	IOB2   Scheme = "iob2"  // B- begins a span, I- goes on
	BIOES  Scheme = "bioes" // as IOB2, but E- ends a span and S- is one by itself
	BMES   Scheme = "bmes"  // BIOES with M- for I-
	BILOU  Scheme = "bilou" // BIOES with L- for E- and U- for S-
)

// schemes are those that mark spans, with their letters for the beginning, the
// inside, the end and the whole of a span.
var schemes = map[Scheme][4]byte{
	IOB1: {'I', 'I', 'I', 'I'}, IOB2: {'B', 'I', 'I', 'B'}, BIOES: {'B', 'I', 'E', 'S'}, BMES: {'B', 'M', 'E', 'S'}, BILOU: {'B', 'I', 'L', 'U'},
}

// Outside is the tag of a token in no span.
const Outside = "O"

// Span is the tokens [From, To) and their label. Files of bare letters, as word
// segmentation has them, have the label "".
type Span struct {
	From, To int
	Label    string
}

// split takes a tag apart: its letter in BIOES, 'O' where it marks no span, and
// the label. ok is false for what is no tag of a span.
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

// Spans finds the spans that tags of any scheme mark, also where they keep to
// none, by the rule of the CoNLL shared tasks' conlleval, extended to E and S as
// seqeval does: a span begins at B, S, after another label, and where I or E
// follow O, E or S; it ends before what begins one and before O.
func Spans(tags []string) []Span {
	var spans []Span
	open := -1 // where the present span began
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

// Tags writes the spans of a sentence of n tokens as tags; spans are in order
// and do not overlap. Labels is no scheme of spans, and gives none.
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

// census counts what tells schemes apart, over all sentences of a file.
type census struct {
	letters  [256]int // the tags' letters as the file has them; bare ones too
	labels   int      // tags that mark no span
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

// scheme is the one that the tags keep to, or come nearest to.
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

// forbidden is what may not follow what in BIOES, by the tags' numbers; -1 is
// before the first and after the last.
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

// inBIOES lists the tags of BIOES for labels in their order, O first.
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
