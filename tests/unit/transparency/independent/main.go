// Verifies what a log has signed and proved with golang.org/x/mod/sumdb, which shares no line with it. Reads one JSON
// document from standard input, and prints how many proofs hold and how many changed ones are refused.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type document struct {
	Key     string
	Note    string
	Records []struct {
		Size, Index int64
		Root, Leaf  tlog.Hash
		Proof       tlog.RecordProof
	}
	Trees []struct {
		Old, New         int64
		OldRoot, NewRoot tlog.Hash
		Proof            tlog.TreeProof
	}
}

func main() {
	var given document
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		log.Fatal(err)
	}
	verifier, err := note.NewVerifier(given.Key)
	if err != nil {
		log.Fatal(err)
	}
	opened, err := note.Open([]byte(given.Note), note.VerifierList(verifier))
	if err != nil {
		log.Fatal(err)
	}
	lines := strings.Split(opened.Text, "\n")
	if size, err := strconv.ParseInt(lines[1], 10, 64); err != nil || size < 1 || len(opened.Sigs) != 1 {
		log.Fatal("not a checkpoint with one signature: ", opened.Text)
	}
	if _, err := note.Open([]byte(strings.Replace(given.Note, lines[1], lines[1]+"0", 1)), note.VerifierList(verifier)); err == nil {
		log.Fatal("a changed note was accepted")
	}
	held, refused := 0, 0
	count := func(err, changed error) {
		if err != nil {
			log.Fatal(err)
		}
		held++
		if changed != nil {
			refused++
		}
	}
	for _, each := range given.Records {
		err := tlog.CheckRecord(each.Proof, each.Size, each.Root, each.Index, each.Leaf)
		other := each.Leaf
		other[0] ^= 1
		count(err, tlog.CheckRecord(each.Proof, each.Size, each.Root, each.Index, other))
	}
	for _, each := range given.Trees {
		err := tlog.CheckTree(each.Proof, each.New, each.NewRoot, each.Old, each.OldRoot)
		other := each.OldRoot
		other[0] ^= 1
		count(err, tlog.CheckTree(each.Proof, each.New, each.NewRoot, each.Old, other))
	}
	fmt.Println(held, refused)
}
