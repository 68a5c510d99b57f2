package text

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// byteStrings writes each byte as a printable character, as GPT-2's tokenizer
// does (Radford et al., 2019): a byte that is printable in Latin-1 is kept, the
// others are U+0100 and up, in order.
var byteStrings = func() (table [256]string) {
	next := rune(0x100)
	for b := range rune(256) {
		if '!' <= b && b <= '~' || '¡' <= b && b <= '¬' || '®' <= b && b <= 'ÿ' {
			table[b] = string(b)
		} else {
			table[b] = string(next)
			next++
		}
	}
	return table
}()

// stringBytes is the inverse of byteStrings, by character.
var stringBytes = func() map[rune]byte {
	m := map[rune]byte{}
	for b, s := range byteStrings {
		r, _ := utf8.DecodeRuneInString(s)
		m[r] = byte(b)
	}
	return m
}()

// byteLevel writes each byte of the text as a character.
func byteLevel(f *flow) {
	f.rewrite(func(p span) {
		if !f.traced && p.from >= f.head { // as below, but faster
			for _, b := range f.text[p.from:p.to] {
				if '!' <= b && b <= '~' {
					f.newText = append(f.newText, b)
				} else {
					f.newText = append(f.newText, byteStrings[b]...)
				}
			}
			return
		}
		for i := p.from; i < p.to; i++ {
			f.put(byteStrings[f.text[i]], i, i+1)
		}
	})
}

// byteLevelSplitter is the pre-tokenizer ByteLevel.
func byteLevelSplitter(raw json.RawMessage) ([]step, error) {
	s := struct {
		PrefixSpace bool `json:"add_prefix_space"`
		UseRegex    bool `json:"use_regex"`
	}{true, true}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	var steps []step
	if s.PrefixSpace {
		steps = append(steps, prefixSpace)
	}
	if s.UseRegex {
		steps = append(steps, cutGPT2)
	}
	return append(steps, byteLevel), nil
}

// prefixSpace puts a space before each piece.
func prefixSpace(f *flow) {
	f.rewrite(func(p span) {
		if p.from == p.to || f.text[p.from] != ' ' {
			f.put(" ", p.from, p.from)
		}
		f.keep(p.from, p.to)
	})
}

// byteLevelDecoder concatenates the bytes of all tokens. A token that is not
// written in byteStrings is kept as it is; bytes that are not UTF-8 become
// U+FFFD, as in Rust's from_utf8_lossy.
func byteLevelDecoder(tokens []string) []string {
	var b []byte
	for _, token := range tokens {
		at := len(b)
		for _, r := range token {
			c, ok := stringBytes[r]
			if !ok {
				b = append(b[:at], token...)
				break
			}
			b = append(b, c)
		}
	}
	return []string{lossy(b)}
}

// lossy replaces what is not UTF-8: each longest truncated character becomes
// one U+FFFD, and so does any other invalid byte.
func lossy(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var s strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			n = brokenLength(b)
			s.WriteRune(utf8.RuneError)
		} else {
			s.Write(b[:n])
		}
		b = b[n:]
	}
	return s.String()
}

// brokenLength is the number of bytes, at least 1, that b shares with the
// beginning of some character, where b does not begin with a whole one.
func brokenLength(b []byte) int {
	n := 1
	// A character may begin so if some following bytes make it valid; trying
	// the lowest and the highest continuation byte decides.
	for n < len(b) && n < utf8.UTFMax && begins(b[:n+1]) {
		n++
	}
	return n
}

func begins(b []byte) bool {
	for _, fill := range []byte{0x80, 0xbf} {
		whole := append(append(make([]byte, 0, 8), b...), fill, fill, fill)
		if r, n := utf8.DecodeRune(whole); (r != utf8.RuneError || n > 1) && n > len(b) {
			return true
		}
	}
	return false
}

// gpt2Pattern splits text for byte-level models: contractions, words, numbers
// and punctuation, each with the space before it, and white space except its
// last character.
const gpt2Pattern = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

// cutGPT2 splits by gpt2Pattern, in one pass.
func cutGPT2(f *flow) {
	table := classTable()
	f.cut(func(p span) {
		t := classReader{f.text[p.from:p.to], table}
		for i := 0; i < len(t.text); {
			end := t.gpt2(i)
			f.add(p.from+i, p.from+end)
			i = end
		}
	})
}

// gpt2 returns where the part that begins at byte i ends.
func (t classReader) gpt2(i int) int {
	if n := contraction(t.text[i:]); n > 0 {
		return i + n
	}
	c, n := t.at(i)
	if t.text[i] == ' ' {
		if next, m := t.at(i + 1); m > 0 && next&space == 0 {
			c, n = next, n+m
		}
	}
	switch i += n; {
	case c&letter != 0:
		return t.run(i, letter, 0)
	case c&number != 0:
		return t.run(i, number, 0)
	case c&space == 0:
		for {
			c, n := t.at(i)
			if n == 0 || c&(space|letter|number) != 0 {
				return i
			}
			i += n
		}
	}
	end := t.run(i, space, 0)
	if end == len(t.text) || end == i {
		return end
	}
	_, n = utf8.DecodeLastRune(t.text[:end])
	return end - n
}

// contraction returns the length of the English contraction ending that text
// begins with, or 0.
func contraction(text []byte) int {
	if len(text) < 2 || text[0] != '\'' {
		return 0
	}
	switch text[1] {
	case 's', 't', 'm', 'd':
		return 2
	}
	if len(text) > 2 {
		switch string(text[1:3]) {
		case "re", "ve", "ll":
			return 3
		}
	}
	return 0
}
