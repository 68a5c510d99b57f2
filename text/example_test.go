package text_test

import (
	"context"
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/text"
)

func ExampleTrainTokenizer() {
	texts := slices.Values([]string{"The cat sat.", "The dog sat.", "我爱你。"})
	tok, err := text.TrainTokenizer(context.Background(), "word", texts, &text.TokenizerOptions{Lowercase: true})
	if err != nil {
		panic(err)
	}
	const s = "The cat, 你."
	for _, token := range tok.Tokens(nil, s) {
		fmt.Printf("%q %s\n", s[token.Start:token.End], tok.Vocabulary().Token(token.ID))
	}
	fmt.Println(tok.Decode(tok.Encode(nil, "the dog sat.")))
	// Output:
	// "The" the
	// "cat" cat
	// "," <unk>
	// "你" 你
	// "." .
	// the dog sat.
}
