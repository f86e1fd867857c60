import re,torch
src=open('/tmp/w/h3_src/a06.txt').read()
cells=[c.split('\n',1) for c in re.split(r'^# %%',src,flags=re.M)[1:]]
code=[b for h,b in cells if h.strip()!='md']
stop=next(i for i,b in enumerate(code) if 'base = {' in b)
ns={}; exec('\n'.join(code[:stop]).replace('show(','pass;(lambda *a,**k: None)('),ns)
from wysiwyg.core import sheet
from PIL import Image; import numpy as np
im=torch.cat([ns['scene'](s,k)[3].image()[:1] for k in (0,1) for s in ns['scenes']])
x=sheet(im,cols=7); print(type(x)); x=x if isinstance(x,Image.Image) else Image.fromarray((np.asarray(x)*255).astype('uint8') if np.asarray(x).dtype!=np.uint8 else np.asarray(x)); x.resize((896,256)).save('/tmp/w/h3_src/sc.png'); print(ns['steep'])
