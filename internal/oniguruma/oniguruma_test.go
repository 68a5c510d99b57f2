package oniguruma

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// find returns the matches in text, by a matcher that loses its patience after a
// number of steps, and the number of steps that it took.
func find(re *Regexp, text string, patience int) (matches [][2]int, steps int) {
	m := &matcher{re: re}
	m.begin([]byte(text))
	m.patience = patience
	m.all(func(from, to int) bool {
		matches = append(matches, [2]int{from, to})
		return true
	})
	return matches, patience - m.patience
}

const endless = math.MaxInt / 2

// What is remembered changes no match, from whenever on it is. The expressions and
// texts are those whose matches a test of package text compares with Oniguruma's.
func TestMemoryChangesNoMatch(t *testing.T) {
	file, err := os.Open("../../text/testdata/regex.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 1<<26)
	n := 0
	for ; lines.Scan(); n++ {
		var row struct {
			Expr  string   `json:"expr"`
			Texts []string `json:"texts"`
		}
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		re, err := Compile(row.Expr)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(row.Texts, "")
		if len(text) > 400 {
			text = strings.ToValidUTF8(text[:400], "")
		}
		want, _ := find(re, text, endless)
		for _, patience := range []int{0, 20, 300} {
			if got, _ := find(re, text, patience); !slices.Equal(got, want) {
				t.Errorf("%s in %q, remembering after %d steps: %v, not %v", row.Expr, text, patience, got, want)
			}
		}
	}
	if n < 500 {
		t.Errorf("only %d expressions", n)
	}
}

// The number of steps grows as the text does, whatever the expression.
func TestStepsAreLinear(t *testing.T) {
	for _, c := range []struct{ expr, text string }{
		{`(a+)+b`, "a"},
		{`(?:\w+\s?)*\d`, "word "},
		{`(?:a*)*c`, "a"},
		{`(?:a|a)*?b`, "a"},
		{`(?:a|aa)+$\d`, "a"},
		{`a*a*a*a*a*b`, "a"},
		{`(?m).*z|a`, "ab\n"},
		{`a*+b`, "a"},
		{`\w+:`, "a"},
		{`(?>a*)b`, "a"},
		{`(?>(?:ab?)*)c`, "ab"},
		{`a(?=(?m).*z)|a`, "a"},
		{`(?=(?:a|ab)*$)a`, "a"},
		{`(?<=b.*)a`, "a"},
		{`(?<!(?m)x(?:a|aa)*)b|a`, "a"},
		{`(?:(?:a?)*b?)*c`, "ab"},
		{`a{0,50}a{0,50}b`, "a"},
		{`(?:\b\w+\b\s*)+\d`, "word "},
		{`(?m)(?:x*(?:y.*z)?)`, "y"},
	} {
		re, err := Compile(c.expr)
		if err != nil {
			t.Error(err)
			continue
		}
		steps := func(size int) int {
			text := strings.Repeat(c.text, size/len(c.text))
			_, n := find(re, text, patience*len(text)+1000)
			return n
		}
		short, long := steps(1<<13), steps(1<<15)
		if long > 5*short || long > 1000<<15 {
			t.Errorf("%s takes %d steps for 8 KiB, %d for 32 KiB", c.expr, short, long)
		}
	}
}

// What is remembered does not grow without measure, and all may be forgotten.
func TestMemoryIsBounded(t *testing.T) {
	re, err := Compile(`(?m)(?:.{0,3}a){0,60}.*z|(?>(?:ab?)*)c|\w`)
	if err != nil {
		t.Fatal(err)
	}
	text := []byte(strings.Repeat("ab", 40_000))
	m := &matcher{re: re}
	m.begin(text)
	m.patience = 0
	most, n := 0, 0
	m.all(func(from, to int) bool {
		most = max(most, m.used*re.states*16)
		n++
		return true
	})
	if most > memory+re.states*16 || n != len(text) {
		t.Errorf("%d matches, %d bytes in use", n, most)
	}
}

func TestErrors(t *testing.T) {
	for expr, want := range map[string]string{
		`(a)\1`:                              "byte 4: references to a group are not supported",
		`\Gx`:                                `byte 1: \G is not supported`,
		`a\K`:                                `byte 2: \K is not supported`,
		`(?~a)`:                              "byte 3: groups that begin with (?~ are not supported",
		`(?(1)a)`:                            "groups that begin with (?( are not supported",
		`(?P<n>a)`:                           "groups that begin with (?P are not supported",
		`(?s)a`:                              "groups that begin with (?s are not supported",
		`(a`:                                 "a group is not closed",
		`a)`:                                 "byte 2: a closing parenthesis without",
		`(?<n`:                               "the name of a group is not closed",
		`*a`:                                 "byte 1: * repeats nothing",
		`a|+`:                                "byte 3: + repeats nothing",
		`{2}`:                                "{2} repeats nothing",
		`^*`:                                 "* repeats a position",
		`(?=a)+`:                             "+ repeats a position",
		`a{2000}`:                            "byte 2: {2000} repeats more than 1000 times",
		`a{99999999999999999999}`:            "repeats more than 1000 times",
		`(?:\w{900}a){900}`:                  "it is too large: with its repetitions written out",
		strings.Repeat(`\w.`, 5000):          "it is too large: its classes have",
		strings.Repeat(`a`, 70_000):          "it is too large: it has more than 65536 bytes",
		strings.Repeat(`(`, 1000):            "nested more than 200 deep",
		strings.Repeat(`[`, 1000):            "nested more than 200 deep",
		`[a`:                                 "a class is not closed",
		`[]`:                                 "a class is empty",
		`[b-a]`:                              "the range b-a is empty",
		`[a-\d]`:                             "a range ends with a class",
		`[\d-a]`:                             "a range begins with a class",
		`[[:foo:]]`:                          "is not closed, or not known",
		`\p{Foo}`:                            "the property",
		`\p{L`:                               "the property",
		`\x{110000}`:                         "does not hold the number of a character",
		`\xE9`:                               "bytes of a character",
		`\u12`:                               "four hexadecimal digits",
		`a\`:                                 "a backslash ends it",
		`(?<=(?=a)b)`:                        "inside a look-behind is not supported",
		`(?<=a++)b`:                          "byte 6: a possessive quantifier inside a look-behind",
		"a\xff":                              "it is not UTF-8",
		`(?<=\R)a`:                           "inside a look-behind is not supported",
		`(?:(?:(?:\b|a|(?:b?)*)*)*)*(*FAIL)`: "callouts",
	} {
		_, err := Compile(expr)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.40s: %v, want %q", expr, err, want)
		}
	}
}

// Any expression and text give matches in order, the same with and without memory.
func FuzzAll(f *testing.F) {
	for _, expr := range []string{`(?i)\b(a+|b)*+\B`, `(?<=^|[^a&&\w]{1,2})a??`, `(?>a|\p{^L})(?!\d)`, `(?x) a # b`, `[[:^alpha:]\x{e9}-]`} {
		f.Add(expr, "aab é1\nb²")
	}
	f.Fuzz(func(t *testing.T, expr, text string) {
		re, err := Compile(expr)
		if err != nil || len(text) > 1000 || !utf8.ValidString(text) {
			return
		}
		last := 0
		var all [][2]int
		for from, to := range re.All([]byte(text)) {
			if from < last || to < from || !utf8.ValidString(text[last:from]) || !utf8.ValidString(text[from:to]) {
				t.Fatalf("%q in %q: a match at [%d, %d) after %d", expr, text, from, to, last)
			}
			last = to
			all = append(all, [2]int{from, to})
		}
		if got, _ := find(re, text, 0); !slices.Equal(got, all) {
			t.Fatalf("%q in %q: with memory %v, not %v", expr, text, got, all)
		}
	})
}
