"""BLEU of a few small corpora by sacreBLEU (2.6.0), as it is set by default: bleu.json."""
import json
import pathlib

import sacrebleu

PERFECT = ["Ein Mann fährt auf einem Fahrrad.", "Zwei Hunde spielen im Schnee, und einer bellt."]
CORPORA = {
    "the same": (PERFECT, PERFECT),
    "much the same": (
        ["Ein Mann fährt Fahrrad .", "Zwei Hunde spielen im Schnee und bellen.", "Ein Kind lacht laut."],
        ["Ein Mann fährt auf einem Fahrrad.", "Zwei Hunde spielen im Schnee.", "Ein kleines Kind lacht."],
    ),
    "short": (["Ein Mann", "Hund"], ["Ein Mann sitzt auf der Bank.", "Ein Hund rennt."]),
    "long": (["der der der der der der der der Mann geht"], ["der Mann geht"]),
    "nothing right": (["a b c d e"], ["v w x y z"]),
    "nothing said": (["", ""], ["Ein Hund.", "Eine Katze."]),
    "one word right": (["eins zwei drei vier fünf"], ["sechs eins sieben acht neun"]),
    "marks": (
        ['Er sagt: &quot;Um 10.30 Uhr, 3,5 km -- 20-jährig (z.B.) &amp; mehr...&quot; ',
         "Kosten: $1,000.00/Tag, 50%! [x] {y} a_b 'c' a-b 9-b. <ok>.,;"],
        ['Er sagte: "Um 10.30 Uhr , 3,5 km - 20-jährig (z. B.) & viel mehr ..."',
         "Kosten : $ 1,000.00 / Tag, 50 %! [x] {y} a _ b 'c' a-b 9 -b. <ok> . , ;"],
    ),
    "case": (["der mann geht nach hause"], ["Der Mann geht nach Hause"]),
}


def measured(name, translations, references):
    bleu = sacrebleu.corpus_bleu(translations, [references])
    return {
        "name": name, "translations": translations, "references": references,
        "score": bleu.score, "precisions": bleu.precisions, "brevity": bleu.bp,
        "words": bleu.sys_len, "reference_words": bleu.ref_len,
    }


cases = [measured(name, *texts) for name, texts in CORPORA.items()]
path = pathlib.Path(__file__).with_name("bleu.json")
path.write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n")
