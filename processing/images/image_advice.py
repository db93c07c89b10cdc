"""How to mend what can't be used as an image."""

ADVICE = {
    "type": (
        "Of a list choose one, or repeat the text with each; of a table give one of its columns, such as "
        "table['image']; of an open file file.read(); of an array PIL.Image.fromarray(array)."
    ),
    "url": (
        "Download the file and give its path; decode the base64 of a data URL: base64.b64decode(url.partition(',')[2])."
    ),
    "keys": "Read them from datasets.Image(decode=False).",
    "none": "Give None itself for no image.",
    "path": "Check the folder and the file ending, and decode base64 to bytes: base64.b64decode(text).",
    "not an image": (
        "Convert PDF, PostScript, SVG, WMF or PSD to PNG, decode base64 to bytes (base64.b64decode(text)), or fetch "
        "again what may be an error page under an image's name."
    ),
    "too large": "Scale it down first.",
    "address": "Check the address.",
    "file": "Fetch the file again.",
}

__all__ = ["ADVICE"]
