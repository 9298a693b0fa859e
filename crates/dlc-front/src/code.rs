//! Every code a diagnostic can carry, in one table, each with the paragraph that
//! `dlc explain E0203` prints.
//!
//! Codes are stable: a number is never given a second meaning. Ranges: `E00xx` text and tokens,
//! `E01xx` syntax, `E02xx` shapes, `E03xx` names, `E04xx` sizes and hyperparameters, `E05xx`
//! `train`, `expect` and data, `E06xx` limits.

/// Makes [`Code`] from the table: variant, number, title, explanation.
macro_rules! codes {
    ($($name:ident $number:literal $title:literal $explanation:literal)*) => {
        /// The kind of a diagnostic.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = concat!("`", $number, "`: ", $title, ".")] $name,)*
        }

        impl Code {
            /// All codes, in the table's order.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// The stable code, as in `E0203`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $number,)* }
            }

            /// The kind of mistake in a few words.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Code::$name => $title,)* }
            }

            /// A paragraph on what it means and how to get rid of it.
            #[must_use]
            pub fn explanation(self) -> &'static str {
                match self { $(Code::$name => $explanation,)* }
            }
        }
    };
}

impl Code {
    /// The code written `text` (`E0203`, `e0203` or `203`).
    #[must_use]
    pub fn parse(text: &str) -> Option<Code> {
        let digits = text.strip_prefix(['E', 'e']).unwrap_or(text);
        let number: u16 = digits.parse().ok()?;
        Code::ALL.iter().copied().find(|code| code.as_str()[1..].parse() == Ok(number))
    }
}

codes! {
    // E00xx: text and tokens
    NotUtf8 "E0001" "the file is not UTF-8"
        "A model is text in UTF-8. The file has a byte sequence that is not: it was saved in \
         another encoding (UTF-16, Latin-1), or it is not a model but weights, data or an \
         archive."
    ControlCharacter "E0002" "a control character"
        "Of the control characters only newline, carriage return before a newline, and tab may \
         stand in a model. A lone carriage return is an old Macintosh line ending: save the file \
         with newlines. Invisible characters that reorder the text around them are refused too, \
         since what one sees would not be what is compiled."
    UnexpectedCharacter "E0003" "a character that has no meaning in the language"
        "Outside strings and comments a model is ASCII: names are letters, digits and `_`, and do \
         not start with a digit. Characters that look like ASCII ones (a Cyrillic `а`, a curly \
         quote, a long dash) usually come from a word processor or a web page; write the plain \
         one."
    UnclosedString "E0004" "a string without its closing quote"
        "A string starts and ends with `\"` on one line. A quote inside it is written `\\\"`."
    DigitsTouchLetters "E0005" "digits that touch letters"
        "A number ends where its digits end. `5x5` (digits, `x`, digits) is one token, sugar for \
         `[5, 5]`; any other contact of a digit with a following letter, as in `5x`, `3abc` or \
         `2n`, is refused, since it would be easy to misread. Write `2*n` for a product. \
         Underscores group digits and stand between two of them: `61_706`. A fraction has digits \
         on both sides of its point: `0.5`, `2.0`."
    NumberTooLarge "E0006" "a number that does not fit"
        "Whole numbers go up to 2^63 - 1 and floating-point numbers up to about 1.8e308. Sizes \
         are limited further, where they are used."
    MismatchedBracket "E0007" "brackets that do not match"
        "Every `(`, `[` and `{` is closed by its own partner, the last opened first. The message \
         points at the place where the bracket was opened."
    UnknownEscape "E0008" "a backslash before something that it does not escape"
        "In a string, a backslash escapes: `\\\"` is a quote, `\\\\` a backslash, `\\n` a newline \
         and `\\t` a tab. There are no other escapes. In a path write `/`, or two backslashes."

    // E01xx: syntax
    Syntax "E0101" "something else is expected here"
        "The text does not follow the grammar at this place. A newline ends a statement, except \
         inside `(..)` and `[..]`, after `=`, and before a line that starts with `|>`, `else`, \
         `where`, `->`, `{` or a binary operator other than `-`: to continue a statement, start \
         the next line with the operator instead of ending the line with it."
    UnknownItem "E0102" "not the start of a definition or section"
        "At the top level of a file stand definitions (`model`, `block`, `optimizer`, `schedule`, \
         `init`), sections (`expect`, `train`, `search`, `augment`, `entry`), and bindings (`let \
         C = 64`, `encoder = Encoder(6)`). Everything else belongs into a body."
    BadTarget "E0103" "something that cannot stand left of `=`"
        "On the left of `=` stands a name (`y = ..`), several names that take a tuple apart (`q, \
         k, v = ..`), or a name with indices (`y[n, o] = ..`), where each index is a name, \
         perhaps with its extent (`h < Ho`). To assert that two values are equal write `==`."
    ChainedComparison "E0104" "comparisons in a row"
        "`a < b < c` has no meaning, since a comparison gives a truth value. Write `a < b and b < \
         c`."
    BadIndex "E0105" "something that is not an index of a reduction"
        "A reduction introduces indices: names, each perhaps with its extent, as in `sum[i, u < \
         T] x[i, u]`. Axis numbers are given to the function instead: `sum[1](x)`."
    ArgumentOrder "E0106" "a positional argument after a named one"
        "Positional arguments come first, then named ones: `conv(6, 5x5, pad = 2)`."
    ReservedWord "E0107" "a reserved word used as a name"
        "`and`, `or`, `not`, `if`, `else`, `where`, `yes` and `no` cannot name anything. All \
         other words of the language (`model`, `param`, `state`, `data`, ...) are keywords only \
         where one is expected and can be used as names elsewhere."

    // E02xx: shapes
    InputMismatch "E0201" "an input that does not fit the declared type"
        "A definition states the types of its inputs: `x: f32[N, 1, 28, 28]`. A name stands for \
         one size, the same wherever it occurs in the signature; `..B` stands for any number of \
         dims; a number must be met. A type without an element type takes any float tensor."
    Broadcast "E0202" "shapes that do not broadcast"
        "Operators on two tensors align their shapes at the last dim. Two dims fit if they are \
         equal or one of them is 1; missing dims count as 1. Give a dim of 1 its place with \
         `unsqueeze[axis]`, or write an index equation, which names every axis."
    ExtentMismatch "E0203" "an index with two extents"
        "In an index equation an index runs over one range. Where it stands alone in a subscript \
         it takes that dim's size, so all those sizes are the same. State the extent (`y[n, h < \
         Ho]`, `sum[i < 3]`) to let reads leave a tensor: they count as 0, and terms of a \
         reduction are skipped."
    UnknownExtent "E0204" "an index whose extent is not known"
        "An index takes its extent from a subscript in which it stands alone: in `y[t] = sum[u] \
         x[t + u]` neither does. State it: `y[t < T]`, `sum[u < 3]`."
    SubscriptCount "E0205" "another number of subscripts than dims"
        "In an index equation a tensor has one subscript for each of its dims."
    OutOfRange "E0206" "an axis or position that does not exist"
        "Axes count from 0, or from -1 backwards; a position is smaller than the dim's size."
    Operation "E0207" "an operation that refuses its operands"
        "The shapes or element types do not fit the operation; the message says which rule is \
         broken."
    DTypeMismatch "E0208" "element types that do not fit together"
        "Tensors of different element types are not mixed silently. Convert one: `f32(x)`, \
         `i32(x)`. Numbers in the text adapt to the tensor beside them, but a fraction does not \
         fit an integer tensor."
    OutputMismatch "E0209" "a result that is not as declared"
        "The signature promises a type after `->`; the body's last expression must have it."
    BadEquation "E0210" "something that has no meaning in an index equation"
        "The right side of an index equation computes one number at each point of its axes: from \
         tensors with all their subscripts, indices, numbers, and functions of single numbers. \
         Compute whole tensors (`softmax`, `@`, slices) in a statement before it."
    MissingElse "E0211" "a condition on the left side's indices without `else`"
        "`where` on an index of a reduction restricts what is reduced. On the equation's own \
         indices it selects, so it says what stands elsewhere: `y[t, u] = s[t, u] where u <= t \
         else -inf`."

    // E03xx: names
    UnknownName "E0301" "a name that is not defined"
        "A name means, in this order: an index of the equation, a local name, a hyperparameter or \
         dim of the definition, a top-level binding, a definition of the file, one of the \
         standard library, or a primitive function."
    DuplicateName "E0302" "a name that is defined twice"
        "Definitions of one file, parameters, states and instances of one block, and the names in \
         one signature are all different."
    Recursion "E0303" "a block that contains itself"
        "Blocks are instantiated when a model is elaborated; one that contains itself, directly \
         or through others, would have no end. Stack layers with `repeat`."
    NotAFunction "E0304" "a call of something that is not a function"
        "Blocks, models, optimizers, initializers, named instances and primitive functions can be \
         called and can be stages of a pipeline. To multiply write `*`."
    UnusedParameter "E0305" "a parameter that has no effect"
        "Nothing that the model returns, or not the loss, depends on this parameter, so it will \
         never be trained."
    UnusedDefinition "E0306" "a definition that is never used"
        "No model, section or other used definition refers to it."
    UnknownField "E0307" "a field that does not exist"
        "Fields are a named instance's parameters and states (`fc.weight`, once the instance has \
         been applied) and the named outputs of a block."
    Arguments "E0308" "arguments that do not fit the signature"
        "Positional arguments that are tensors fill the inputs, the others fill the \
         hyperparameters, both in the order of the signature. Named arguments may come in any \
         order after them. What has no default must be given."
    StateUpdate "E0309" "a state's next value that cannot be set here"
        "`s <- e` sets the value that state `s` of this block has in the next call, once in each \
         call."
    UnusedValue "E0310" "a value that is never used"
        "A statement that is only an expression has no effect, unless it is the last of its \
         block."
    BadLoop "E0311" "a loop that does not fit together"
        "What `scan` carries from step to step has one type, is given its next value in the body, \
         and is named after `with`. `yield` stands in the body itself. What happens once in a \
         call, such as setting a state, stands outside."
    IdleState "E0312" "a state that is never set"
        "What a state is for is to have another value in the next call: `s <- e`. With `=` its \
         name means something else for the rest of this call, and the state stays as it is."

    // E04xx: sizes and hyperparameters
    UnboundDim "E0401" "a dim that must be a number"
        "Sizes in a parameter's shape, in `if` and in `repeat` decide which model is built, so \
         they must be numbers when it is elaborated. Give the dim a value: `--bind D=256`, or a \
         number in the model's signature. Other dims may stay symbolic."
    Constraint "E0402" "a `where` constraint that does not hold"
        "A definition's `where` clauses state what its sizes and hyperparameters must satisfy. \
         They are checked when the definition is used or, if they depend on symbolic dims, when \
         these are bound."
    InexactDivision "E0403" "a division that leaves a remainder"
        "On whole numbers `/` is exact. `//` rounds down, `ceil_div(a, b)` rounds up; for a \
         fraction write one side with a point: `1.0 / 2`."
    DivisionByZero "E0404" "a division of sizes by zero"
        "The divisor is zero; often it is a stride, a number of groups or heads."
    BadSize "E0405" "a number that cannot be a size"
        "A size is a whole number, at least 0 and at most 2^48. A tensor has at most 8 dims and \
         2^47 bytes."
    HyperType "E0406" "a value of the wrong kind"
        "Hyperparameters are numbers, truth values (`yes`, `no`), lists, strings or stages; the \
         message says which is needed here."
    NotCompileTime "E0407" "a value that is not known at compile time"
        "`if`, `repeat`, shapes and hyperparameters need values that are known when the model is \
         elaborated; a tensor's elements are not. To choose between elements write `a if \
         condition else b`."
    UnknownBinding "E0408" "a binding of a dim that the model does not have"
        "`--bind NAME=VALUE` gives a value to a symbolic dim of the model's signature."

    // E05xx: train, expect and data
    UnknownTrainStatement "E0501" "not a statement of a train section"
        "A `train` section has the statements `data`, `loss`, `metric`, `optim`, `stop`, \
         `epochs`, `seed`, `batch`, `accumulate`, `clip`, `shuffle`, `validation` and `out`, \
         separated by newlines or `;`."

    IncompleteTraining "E0502" "a train section that lacks something"
        "A `train` section needs `data`, `loss` and `optim`. Epochs, batch size and seed have \
         defaults."
    DuplicateStatement "E0503" "a statement that occurs twice in a train section"
        "Only `metric` may be repeated in a `train` section."
    BadLoss "E0504" "a loss that cannot be minimized"
        "The loss is one float number for a batch. Reduce it: `mean(..)` or `sum(..)`."
    LossWithoutParameters "E0505" "a loss that does not depend on the parameters"
        "No derivative of the loss with respect to any parameter exists: it does not use the \
         model, or the way passes through something that has no derivative (`argmax`, \
         comparisons, conversion to integers, `stop_gradient`)."
    UnknownData "E0506" "a data set that is not known"
        "Known data sets: `mnist(\"DIR\")` with the fields `image` (f32[N, 1, 28, 28], 0 to 1) \
         and `label` (i32[N]); `tensors(x = f32[N, 4], y = i32[N])`, whose fields the program \
         hands in."
    ExpectationFailed "E0507" "an expectation that does not hold"
        "An `expect` section states what must be true of a model: its number of parameters \
         (`params == 61_706`) and its shapes (`shape(image = [32, 1, 28, 28]) == [32, 10]`)."
    UnknownModel "E0508" "a model that does not exist"
        "The name after `train`, `expect`, or on the command line is that of a `model` of the \
         file."
    BadSetting "E0509" "a training setting out of its range"
        "Epochs, batch size and the number of batches of a step are at least 1, the learning rate \
         and the norm to clip at are positive numbers, the patience is at least 1."
    UnreadableData "E0510" "a data set whose files cannot be read"
        "Paths are relative to the model's file; `--data NAME=PATH` names another place. What a \
         data set's files should hold is in docs/data.md."

    // E06xx: limits
    SourceTooLarge "E0601" "a source file beyond the size limit"
        "A model's text may have 16 MiB. A larger file is almost surely not a model."
    NestingTooDeep "E0602" "nesting beyond the limit"
        "Brackets may be nested 256 deep, and an expression's tree may have 2048 levels. Give \
         parts of the expression a name."
    NameTooLong "E0603" "a name beyond the length limit"
        "A name may have 255 characters."
    TextTooComplex "E0604" "a text that takes too many parsing steps"
        "Parsing stopped since the text took more steps than any reasonable model of its size. \
         Split the definition into several."
    TooManyErrors "E0605" "more errors than are shown"
        "After a number of errors the rest are not reported. Repair the first ones; later ones \
         often follow from them."
    TooManyNodes "E0606" "a graph beyond the size limit"
        "A graph may have a million operations."
    InstancesTooDeep "E0607" "instances nested beyond the limit"
        "Blocks may be nested 256 deep."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_well_formed_distinct_and_ascending() {
        for pair in Code::ALL.windows(2) {
            assert!(pair[0].as_str() < pair[1].as_str(), "{pair:?}");
        }
        for code in Code::ALL {
            let text = code.as_str();
            assert!(text.len() == 5 && text.starts_with('E'), "{text}");
            assert_eq!(Code::parse(text), Some(*code));
            assert!(code.explanation().ends_with('.'), "{text}");
            assert!(!code.explanation().contains("  "), "{text}");
        }
    }

    #[test]
    fn codes_are_found_however_they_are_typed() {
        assert_eq!(Code::parse("e0101"), Some(Code::Syntax));
        assert_eq!(Code::parse("101"), Some(Code::Syntax));
        assert_eq!(Code::parse("E9999"), None);
        assert_eq!(Code::parse("syntax"), None);
    }
}
