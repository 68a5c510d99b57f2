package data

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode/utf8"
)

// Encodings of text files.
const (
	EncodingAuto   = ""        // UTF-8; a line that is not UTF-8 is read as Latin-1 and counted
	EncodingUTF8   = "utf-8"   // a line that is not UTF-8 is an error
	EncodingLatin1 = "latin-1" // every line is Latin-1, read as its superset Windows-1252
)

// maxLine is the size limit of a line, in bytes.
const maxLine = 64 << 20

// LineReader reads a text line by line, from a file, a stream or memory, plain or
// gzipped, in memory that does not grow with the text. It is the only code that
// divides a user's bytes into lines, so one rule holds for every format: a byte
// order mark is dropped, lines end in LF or CRLF (or in CR, where no LF is among
// the first 64 KiB), and a line that cannot be read is an error that names it and
// that every later call repeats.
type LineReader struct {
	File string
	Line int // number of the line read last, from 1

	Recoded      int // lines that were not UTF-8 and were read as Latin-1
	FirstRecoded int // the first of them

	encoding string
	source   *source
	line     []byte
	pending  []byte // the part of line that Read has not returned yet
	err      error  // the first, or io.EOF
}

// OpenLines opens a text file, or standard input for [Stdin], in one of the
// encodings above. It returns an [*InputError] if the file cannot be read or is
// not text, or the encoding is unknown.
func OpenLines(path, encoding string) (*LineReader, error) {
	return linesOf(encoding, func() (*source, error) { return open(path) })
}

// LinesOf is [OpenLines] for content that was already read from the file at
// path; it returns the same errors.
func LinesOf(path string, content []byte, encoding string) (*LineReader, error) {
	return linesOf(encoding, func() (*source, error) { return openStream(path, bytes.NewReader(content), true) })
}

// NewLineReader is [OpenLines] for a stream, such as standard input, which
// messages call name. Lines are returned as they come. It waits for the first
// byte.
func NewLineReader(name string, in io.Reader, encoding string) (*LineReader, error) {
	return linesOf(encoding, func() (*source, error) { return openStream(name, in, false) })
}

func linesOf(encoding string, open func() (*source, error)) (*LineReader, error) {
	if err := checkEncoding(encoding); err != nil {
		return nil, err
	}
	s, err := open()
	if err != nil {
		return nil, err
	}
	if s.kind == kindParquet {
		s.close()
		return nil, &InputError{File: s.name, Problem: "is a Parquet file, not text", Fix: "export it as CSV or JSON lines"}
	}
	return s.lines(encoding), nil
}

// lines reads an input whose encoding has been checked and that is text.
func (s *source) lines(encoding string) *LineReader {
	return &LineReader{File: s.name, encoding: encoding, source: s}
}

func checkEncoding(encoding string) error {
	switch encoding {
	case EncodingAuto, EncodingUTF8, EncodingLatin1:
		return nil
	}
	return Errorf("encoding: want utf-8 or latin-1, got %q", encoding)
}

// stat describes the file; nil if the text does not come from one.
func (r *LineReader) stat() (fs.FileInfo, error) {
	if r.source.file == nil {
		return nil, nil
	}
	return r.source.file.Stat()
}

// verbatim reports whether the lines so far are what the input has, but for a byte order
// mark.
func (r *LineReader) verbatim() bool {
	return r.source.gzip == nil && r.source.lineEnd == '\n' && r.Recoded == 0
}

// Close closes the file.
func (r *LineReader) Close() { r.source.close() }

// Next returns the next line without its line end, as valid UTF-8; io.EOF
// follows the last. Every other error is an [*InputError] that names the line:
// not in the encoding, longer than 64 MiB, or a failure to read.
func (r *LineReader) Next() (string, error) {
	line, err := r.next()
	if err != nil {
		return "", err
	}
	line = bytes.TrimSuffix(line, []byte("\n"))
	return string(bytes.TrimSuffix(line, []byte("\r"))), nil
}

// Read returns the text as a stream of UTF-8, for readers of formats whose
// records may span lines. Do not mix it with Next; its errors are those of
// Next.
func (r *LineReader) Read(p []byte) (int, error) {
	for len(r.pending) == 0 {
		var err error
		if r.pending, err = r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.pending)
	r.pending = r.pending[n:]
	return n, nil
}

// Ready reports whether the next line is already in memory, so that Next will
// not wait for it.
func (r *LineReader) Ready() bool {
	here, _ := r.source.text.Peek(r.source.text.Buffered())
	return bytes.IndexByte(here, r.source.lineEnd) >= 0
}

// head returns the beginning of the lines that have not been read, up to 64 KiB
// as they are in the file, and whether this is all. Nothing is consumed, and an
// error is left to the line that has it.
func (r *LineReader) head() (head []byte, complete bool) {
	head, err := r.source.text.Peek(sniffed)
	if r.source.lineEnd != '\n' {
		head = bytes.ReplaceAll(head, []byte{r.source.lineEnd}, []byte("\n"))
	}
	return head, err != nil
}

// Note reports what was unusual about the lines so far, or "".
func (r *LineReader) Note() string {
	switch {
	case r.Recoded == 0 || r.encoding == EncodingLatin1:
		return ""
	case r.Recoded == 1:
		return fmt.Sprintf("%s: line %d is not UTF-8 and is read as Latin-1", r.File, r.FirstRecoded)
	}
	return fmt.Sprintf("%s: %d lines are not UTF-8 and are read as Latin-1, the first of them line %d", r.File, r.Recoded, r.FirstRecoded)
}

// next returns the next line with its line end, as UTF-8, valid until the
// following call.
func (r *LineReader) next() (line []byte, err error) {
	if r.err == nil {
		line, r.err = r.read()
	}
	return line, r.err
}

func (r *LineReader) read() ([]byte, error) {
	r.line = r.line[:0]
	for {
		part, err := r.source.text.ReadSlice(r.source.lineEnd)
		if len(r.line) == 0 && len(part) > 0 {
			r.Line++
		}
		r.line = append(r.line, part...)
		if len(r.line) > maxLine {
			return nil, r.errorf("give one line per text", "is longer than %d MiB", maxLine>>20)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err == io.EOF && len(r.line) > 0 {
			break
		}
		if err == io.EOF {
			return nil, io.EOF
		}
		if err != nil {
			return nil, unreadable(r.File, err)
		}
		break
	}
	if last := len(r.line) - 1; r.line[last] == r.source.lineEnd {
		r.line[last] = '\n'
	}
	return r.decode()
}

// decode returns the line as UTF-8.
func (r *LineReader) decode() ([]byte, error) {
	if r.encoding != EncodingLatin1 {
		if utf8.Valid(r.line) {
			return r.line, nil
		}
		at := invalidAt(r.line)
		if r.encoding == EncodingUTF8 {
			return nil, r.errorf("save the file as UTF-8, or use --encoding latin-1", "is not UTF-8: byte %d is 0x%02x", at+1, r.line[at])
		}
		if !likeLatin1(r.line) {
			return nil, r.errorf("save the file as UTF-8", "is neither UTF-8 (byte %d is 0x%02x) nor like Latin-1", at+1, r.line[at])
		}
	}
	if r.Recoded++; r.Recoded == 1 {
		r.FirstRecoded = r.Line
	}
	return fromLatin1(r.line), nil
}

func (r *LineReader) errorf(fix, format string, args ...any) *InputError {
	return &InputError{File: r.File, Line: r.Line, Problem: fmt.Sprintf(format, args...), Fix: fix}
}

// invalidAt returns the index of the first byte that is not UTF-8.
func invalidAt(line []byte) int {
	for i := 0; i < len(line); {
		c, n := utf8.DecodeRune(line[i:])
		if c == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(line)
}

// likeLatin1 distinguishes text in a European language from the double-byte
// encodings of East Asia and from those of Cyrillic and Greek, in which bytes
// outside ASCII are adjacent. Two or three such letters inside a word, as in
// "Größe" and "créée", are not.
func likeLatin1(line []byte) bool {
	high, pairs := 0, 0
	for i := 0; i < len(line); {
		n := 0
		for i+n < len(line) && line[i+n] >= 0x80 {
			n++
		}
		if high += n; n > 1 && !insideWord(line, i, i+n) {
			pairs += n - 1
		}
		i += max(n, 1)
	}
	return 3*pairs <= high
}

// insideWord reports whether the bytes from lo to hi are at most three Latin-1
// letters of one case, beside an ASCII letter of that case.
func insideWord(line []byte, lo, hi int) bool {
	lower := func(c byte) bool { return 'a' <= c && c <= 'z' || c >= 0xdf && c != 0xf7 }
	upper := func(c byte) bool { return 'A' <= c && c <= 'Z' || c >= 0xc0 && c <= 0xdf && c != 0xd7 }
	for _, letter := range []func(byte) bool{lower, upper} {
		word := hi-lo <= 3
		for _, c := range line[lo:hi] {
			word = word && letter(c)
		}
		if word && (lo > 0 && letter(line[lo-1]) || hi < len(line) && letter(line[hi])) {
			return true
		}
	}
	return false
}

// windows1252 holds the characters of Windows-1252 where Latin-1 has control
// characters; 0: none.
var windows1252 = [32]rune{
	'€', 0, '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', 0, 'Ž', 0,
	0, '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', 0, 'ž', 'Ÿ',
}

func fromLatin1(line []byte) []byte {
	out := make([]byte, 0, len(line)+len(line)/4)
	for _, c := range line {
		r := rune(c)
		if c >= 0x80 && c < 0xa0 {
			if r = windows1252[c-0x80]; r == 0 {
				r = utf8.RuneError
			}
		}
		out = utf8.AppendRune(out, r)
	}
	return out
}

// isBlank reports whether a line is empty or white space.
func isBlank(line string) bool { return strings.TrimSpace(line) == "" }
