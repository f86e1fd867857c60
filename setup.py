"Package metadata, read from settings.ini."

from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

parser = ConfigParser(delimiters=['='], interpolation=None)
parser.read('settings.ini', encoding='utf8')
cfg = parser['DEFAULT']
extras = {key.removesuffix('_requirements'): cfg[key].split() for key in cfg if key.endswith('_requirements')}

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    author=cfg['author'],
    license='Apache-2.0',
    url=cfg['git_url'],
    keywords=cfg['keywords'],
    long_description=Path('README.md').read_text(encoding='utf8') if Path('README.md').exists() else '',
    long_description_content_type='text/markdown',
    packages=find_packages(include=['wysiwyg', 'wysiwyg.*']),
    package_data={'wysiwyg': ['*.h', '*.js']},
    python_requires='>=' + cfg['min_python'],
    install_requires=cfg['requirements'].split(),
    extras_require=extras,
    entry_points={'console_scripts': cfg['console_scripts'].split()},
    zip_safe=False,
)
